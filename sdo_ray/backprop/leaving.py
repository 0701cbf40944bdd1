"""Leave a pipeline's call in its middle, with what was made by then."""

from typing import Any

from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.backprop.errors import TraceError
from sdo_ray.backprop.patches import restored_processors


class Left(Exception):
    """Raised inside a pipeline call to leave it.

    Attributes:
        found: what the call was made for.
    """

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.found = found


def leaving(pipeline: Any, pipeline_call: dict[str, Any]) -> Any:
    """Call the pipeline, and return what it is left with; its denoisers have the attention processors of before.

    Raises:
        TraceError: it came to its end.
    """
    with restored_processors(denoisers_of(pipeline).values()):
        try:
            pipeline(**pipeline_call)
        except Left as left:
            return left.found
    raise TraceError(
        "pipeline",
        f"{type(pipeline).__name__}, whose call came to an end before it was expected to",
        "a pipeline that encodes its prompts and takes scheduler steps",
        "use another pipeline",
    )
