"""BoxSup: candidate segments and the network take turns."""

from boxel.models.boxsup.update import UpdateConfig, choose, costs

__all__ = ["UpdateConfig", "choose", "costs"]
