from .adapt import adapt as adapt
from .config import BoxCasegTraining as BoxCasegTraining
from .config import BoxInstTraining as BoxInstTraining
from .config import BoxSupTraining as BoxSupTraining
from .config import FCRNInstancesTraining as FCRNInstancesTraining
from .config import FCRNTraining as FCRNTraining
from .config import MaskRCNNTraining as MaskRCNNTraining
from .config import TrainConfig as TrainConfig
from .recipe import read_config as read_config
from .run import train as train

__all__ = [
    "BoxCasegTraining",
    "BoxInstTraining",
    "BoxSupTraining",
    "FCRNInstancesTraining",
    "FCRNTraining",
    "MaskRCNNTraining",
    "TrainConfig",
    "adapt",
    "read_config",
    "train",
]
