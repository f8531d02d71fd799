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
from chainrule._errors import ChainruleError as ChainruleError
from chainrule._errors import ConvergenceError as ConvergenceError
from chainrule._errors import InputTypeError as InputTypeError
from chainrule._errors import MemoryLimitError as MemoryLimitError
from chainrule._errors import MissingRuleError as MissingRuleError
from chainrule._errors import ShapeError as ShapeError
from chainrule._errors import SingularError as SingularError
from chainrule._implicit import fixed_point as fixed_point
from chainrule._implicit import implicit as implicit
from chainrule._implicit import minimize_implicit as minimize_implicit
from chainrule._implicit import root as root
from chainrule._inverse import LocalInverse as LocalInverse
from chainrule._inverse import inverse as inverse
from chainrule._jacobian import Jacobian as Jacobian
from chainrule._linalg.factorization import Factorization as Factorization
from chainrule._newton import newton as newton
from chainrule._newton_cg import newton_cg as newton_cg
from chainrule._plan.plan import Plan as Plan
from chainrule._plan.plan import PlanCache as PlanCache
from chainrule._planning import plan as plan
from chainrule._solution import Solution as Solution
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
