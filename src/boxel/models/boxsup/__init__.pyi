from .config import BoxSupConfig as BoxSupConfig
from .config import UpdateConfig as UpdateConfig
from .dataset import BoxSupDataset as BoxSupDataset
from .model import BoxSup as BoxSup
