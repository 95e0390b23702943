from .config import MaskRCNNConfig as MaskRCNNConfig
from .model import MaskRCNN as MaskRCNN
