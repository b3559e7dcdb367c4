"""Build hook: an editable install gets the same one-line start-up file as a normal one."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StartUpFileHook(BuildHookInterface[Any]):
    """Put lm_eval_pruned.pth into site-packages under `pip install -e`; the wheel gets it by force-include."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds the `version` ("standard" or "editable") of the wheel."""
        if version == "editable":
            build_data["force_include_editable"]["lm_eval_pruned.pth"] = "lm_eval_pruned.pth"
