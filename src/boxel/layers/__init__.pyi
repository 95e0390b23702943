from .backbone import Backbone as Backbone
from .bifpn import BiFPN as BiFPN
from .classifier import DilatedClassifier as DilatedClassifier
from .classifier import FullyConnectedClassifier as FullyConnectedClassifier
from .classifier import field_of_view as field_of_view
from .decoder import Concatenate as Concatenate
from .decoder import TopDown as TopDown
from .decoder import upsample as upsample
from .deformable import ModulatedDeformConv2d as ModulatedDeformConv2d
from .deformable import make_deformable as make_deformable
from .dynamic import dynamic_masks as dynamic_masks
from .dynamic import num_dynamic_params as num_dynamic_params
from .dynamic import upsample_twice as upsample_twice
from .norm import FrozenBatchNorm2dAct as FrozenBatchNorm2dAct
from .norm import exchange_batch_norm as exchange_batch_norm
from .norm import norm_layer as norm_layer
from .padding import pad_batch as pad_batch
from .pyramid import FPN as FPN
from .transfer import TransferredHead as TransferredHead
from .transfer import WeightTransfer as WeightTransfer
from .transfer import segmentation_head as segmentation_head
from .types import Norm as Norm

__all__ = [
    "FPN",
    "Backbone",
    "BiFPN",
    "Concatenate",
    "DilatedClassifier",
    "FrozenBatchNorm2dAct",
    "FullyConnectedClassifier",
    "ModulatedDeformConv2d",
    "Norm",
    "TopDown",
    "TransferredHead",
    "WeightTransfer",
    "dynamic_masks",
    "exchange_batch_norm",
    "field_of_view",
    "make_deformable",
    "norm_layer",
    "num_dynamic_params",
    "pad_batch",
    "segmentation_head",
    "upsample",
    "upsample_twice",
]
