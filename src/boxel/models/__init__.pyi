from .boxcaseg import BoxCaseg as BoxCaseg
from .boxcaseg import BoxCasegConfig as BoxCasegConfig
from .boxinst import BoxInst as BoxInst
from .boxinst import BoxInstConfig as BoxInstConfig
from .boxsup import BoxSup as BoxSup
from .boxsup import BoxSupConfig as BoxSupConfig
from .detector import Detector as Detector
from .fcrn import FCRN as FCRN
from .fcrn import FCRNConfig as FCRNConfig
from .fcrn import FCRNInstances as FCRNInstances
from .fcrn import FCRNInstancesConfig as FCRNInstancesConfig
from .inference import InferenceConfig as InferenceConfig
from .inference import predict_batch as predict_batch
from .instances import Instances as Instances
from .io import Model as Model
from .io import build as build
from .io import load as load
from .io import save as save
from .mask_rcnn import MaskRCNN as MaskRCNN
from .mask_rcnn import MaskRCNNConfig as MaskRCNNConfig
from .prediction import Prediction as Prediction
from .prediction import PredictionSummary as PredictionSummary
from .prediction import iter_predictions as iter_predictions
from .prediction import predict as predict
from .semantic import LabelMap as LabelMap
from .semantic import Segmenter as Segmenter
from .semantic import SemanticInferenceConfig as SemanticInferenceConfig

__all__ = [
    "FCRN",
    "BoxCaseg",
    "BoxCasegConfig",
    "BoxInst",
    "BoxInstConfig",
    "BoxSup",
    "BoxSupConfig",
    "Detector",
    "FCRNConfig",
    "FCRNInstances",
    "FCRNInstancesConfig",
    "InferenceConfig",
    "Instances",
    "LabelMap",
    "MaskRCNN",
    "MaskRCNNConfig",
    "Model",
    "Prediction",
    "PredictionSummary",
    "Segmenter",
    "SemanticInferenceConfig",
    "build",
    "iter_predictions",
    "load",
    "predict",
    "predict_batch",
    "save",
]
