from .data import Annotations as Annotations
from .data import Category as Category
from .data import check as check
from .data import convert as convert
from .data import read as read
from .data import write as write
from .evaluation import evaluate as evaluate
from .exporting import export as export
from .exporting import push_to_hub as push_to_hub
from .labeling import BoxMasks as BoxMasks
from .labeling import BoxSegmenter as BoxSegmenter
from .labeling import label as label
from .models.instances import Instances as Instances
from .models.io import load as load
from .models.prediction import predict as predict
from .training import adapt as adapt
from .training import train as train
from .utils.errors import BoxelError as BoxelError

__version__: str
