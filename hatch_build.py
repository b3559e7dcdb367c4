"""Hatchling build hook that adds lm_eval_pruned.pth, the one-line start-up file, to editable installs."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StartUpFileHook(BuildHookInterface[Any]):
    """Put lm_eval_pruned.pth into site-packages under `pip install -e`; a normal wheel has it by force-include."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file to an editable wheel; hatchling calls this with `version` "standard" or "editable"."""
        if version == "editable":
            build_data["force_include_editable"]["lm_eval_pruned.pth"] = "lm_eval_pruned.pth"
