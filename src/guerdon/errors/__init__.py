"""Errors that the service answers with. Each class has a stable code and the text of its page at `/problems/{code}`.

* `CallerError`: the request is wrong. The answer states what to change; nothing was written.
* `BusinessError`: the request is right, but a rule refuses it. The refusal is definite and safe to show to a person.
* `OperationsError`: the service cannot do it now. Retry later, with the same key where value moves.
"""

from guerdon.errors.base import *
from guerdon.errors.business import *
from guerdon.errors.caller import *
from guerdon.errors.operations import *
