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
from chainrule._check import check as check
from chainrule._check_report import CheckReport as CheckReport
from chainrule._errors import ChainruleError as ChainruleError
from chainrule._errors import CheckError as CheckError
from chainrule._errors import InputTypeError as InputTypeError
from chainrule._errors import MemoryLimitError as MemoryLimitError
from chainrule._errors import MissingRuleError as MissingRuleError
from chainrule._errors import ShapeError as ShapeError
from chainrule._errors import SingularError as SingularError
from chainrule._jacobian import Jacobian as Jacobian
from chainrule._linalg.factorization import Factorization as Factorization
from chainrule._newton import newton as newton
from chainrule._newton_cg import newton_cg as newton_cg
from chainrule._plan.plan import Plan as Plan
from chainrule._plan.plan import PlanCache as PlanCache
from chainrule._planning import plan as plan
from chainrule._solution import Solution as Solution

if typing.TYPE_CHECKING:
    from chainrule._solver import StructuredSolver as StructuredSolver

__version__ = "0.1.0"


def __getattr__(name: str) -> typing.Any:
    """What stands on an optional package is imported when it is asked for."""
    if name != "StructuredSolver":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from chainrule._solver import StructuredSolver as StructuredSolver
    except ImportError as error:
        raise ChainruleError("StructuredSolver needs lineax: pip install 'chainrule[solvers]'") from error
    return StructuredSolver
