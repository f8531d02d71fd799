"""One rule per linear primitive; importing this package registers them all."""

from chainrule._rules import (  # noqa: F401
    contraction,
    control,
    indexing,
    loop,
    pointwise,
    reduction,
    shape,
    solve,
    window,
)
from chainrule._rules._registry import RULES as RULES
from chainrule._rules._registry import SCATTERED as SCATTERED
from chainrule._rules._registry import ZEROS as ZEROS
from chainrule._rules._registry import rule_for as rule_for
from chainrule._rules.fallback import fallback as fallback
from chainrule._rules.sparse import written_out as written_out
