"""BoxSup: candidate segments and the network take turns."""

from boxel.models.boxsup.config import BoxSupConfig
from boxel.models.boxsup.dataset import BoxSupDataset
from boxel.models.boxsup.model import BoxSup
from boxel.models.boxsup.update import UpdateConfig, choose, costs

__all__ = ["BoxSup", "BoxSupConfig", "BoxSupDataset", "UpdateConfig", "choose", "costs"]
