from .config import SegmenterConfig as SegmenterConfig
from .config import SemanticConfig as SemanticConfig
from .inference import LabelMap as LabelMap
from .inference import SemanticInferenceConfig as SemanticInferenceConfig
from .model import Segmenter as Segmenter
from .network import FullyConvolutional as FullyConvolutional
