"""The derivative as a linear map: the Jacobian of any JAX function, sparse where it is sparse."""

import typing

from chainrule._api import gradient as gradient
from chainrule._api import hessian as hessian
from chainrule._api import hvp as hvp
from chainrule._api import jacobian as jacobian
from chainrule._api import linearize as linearize
from chainrule._api import pullback as pullback
from chainrule._api import pushforward as pushforward
from chainrule._api import value_and_jacobian as value_and_jacobian
from chainrule._check.check import check as check
from chainrule._check.report import CheckReport as CheckReport
from chainrule._density.continuous import integrate_density as integrate_density
from chainrule._density.density import log_abs_det as log_abs_det
from chainrule._density.density import slogdet as slogdet
from chainrule._density.density import transform_log_density as transform_log_density
from chainrule._density.density import transform_samples as transform_samples
from chainrule._density.density import value_and_log_abs_det as value_and_log_abs_det
from chainrule._density.triangular_inverse import triangular_inverse as triangular_inverse
from chainrule._errors import ChainruleError as ChainruleError
from chainrule._errors import CheckError as CheckError
from chainrule._errors import ConvergenceError as ConvergenceError
from chainrule._errors import InputTypeError as InputTypeError
from chainrule._errors import MemoryLimitError as MemoryLimitError
from chainrule._errors import MissingRuleError as MissingRuleError
from chainrule._errors import NotConservativeError as NotConservativeError
from chainrule._errors import ShapeError as ShapeError
from chainrule._errors import SingularError as SingularError
from chainrule._fields.calculus import antisymmetric_part as antisymmetric_part
from chainrule._fields.calculus import curl as curl
from chainrule._fields.calculus import directional as directional
from chainrule._fields.calculus import divergence as divergence
from chainrule._fields.calculus import is_conservative as is_conservative
from chainrule._fields.calculus import is_incompressible as is_incompressible
from chainrule._fields.calculus import jacobian_determinant as jacobian_determinant
from chainrule._fields.gradient_flow import gradient_flow as gradient_flow
from chainrule._fields.gradient_flow import polyak_lojasiewicz as polyak_lojasiewicz
from chainrule._fields.potential import potential as potential
from chainrule._implicit.functions import fixed_point as fixed_point
from chainrule._implicit.functions import implicit as implicit
from chainrule._implicit.functions import minimize_implicit as minimize_implicit
from chainrule._implicit.functions import root as root
from chainrule._implicit.inverse import LocalInverse as LocalInverse
from chainrule._implicit.inverse import inverse as inverse
from chainrule._jacobians.jacobian import Jacobian as Jacobian
from chainrule._laplacian.laplacian import laplacian as laplacian
from chainrule._linalg.factorization import Factorization as Factorization
from chainrule._optimize.newton import newton as newton
from chainrule._optimize.newton_cg import newton_cg as newton_cg
from chainrule._optimize.solution import Solution as Solution
from chainrule._plan.plan import Plan as Plan
from chainrule._plan.plan import PlanCache as PlanCache
from chainrule._planning import plan as plan
from chainrule._stochastic.estimates import diagonal_estimate as diagonal_estimate
from chainrule._stochastic.estimates import log_det_estimate as log_det_estimate
from chainrule._stochastic.estimates import trace_estimate as trace_estimate
from chainrule._stochastic.langevin import Particles as Particles
from chainrule._stochastic.langevin import annealed_langevin as annealed_langevin
from chainrule._stochastic.langevin import langevin as langevin
from chainrule._stochastic.probing import Estimate as Estimate
from chainrule._stochastic.score import denoising_score_matching_loss as denoising_score_matching_loss
from chainrule._stochastic.score import score as score
from chainrule._stochastic.score import score_matching_loss as score_matching_loss
from chainrule._stochastic.score import sliced_score_matching_loss as sliced_score_matching_loss
from chainrule._stochastic.score import stein_residual as stein_residual
from chainrule._stored.chunks import Chunk as Chunk
from chainrule._stored.chunks import jacobian_chunks as jacobian_chunks
from chainrule._stored.jacobian import StoredJacobian as StoredJacobian
from chainrule._stored.jacobian import open_jacobian as open_jacobian
from chainrule._stored.store import save_jacobian as save_jacobian
from chainrule.explain import explain as explain

if typing.TYPE_CHECKING:
    from chainrule._solver import StructuredSolver as StructuredSolver
    from chainrule.explain.explanation import Explanation as Explanation

__version__ = "0.1.0"


def __getattr__(name: str) -> typing.Any:
    """What stands on an optional package, or is large, is imported when it is asked for."""
    if name == "Explanation":
        from chainrule.explain.explanation import Explanation as Explanation

        return Explanation
    if name != "StructuredSolver":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from chainrule._solver import StructuredSolver as StructuredSolver
    except ImportError as error:
        raise ChainruleError("StructuredSolver needs lineax: pip install 'chainrule[solvers]'") from error
    return StructuredSolver
