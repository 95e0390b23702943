from .annotations import Annotations as Annotations
from .annotations import Category as Category
from .checks import check as check
from .checks import repair as repair
from .config import AugmentConfig as AugmentConfig
from .config import CropConfig as CropConfig
from .config import ScaleCropConfig as ScaleCropConfig
from .conversion import convert as convert
from .crops import CropDataset as CropDataset
from .dataset import ImageDataset as ImageDataset
from .dataset import InstanceDataset as InstanceDataset
from .dataset import SemanticDataset as SemanticDataset
from .dataset import collate as collate
from .formats import ConversionWarning as ConversionWarning
from .formats import read as read
from .formats import recognize as recognize
from .formats import write as write
from .images import ImageError as ImageError
from .images import image_size as image_size
from .images import read_image as read_image
from .issues import Issue as Issue
from .issues import format_issues as format_issues
from .issues import issues_to_json as issues_to_json
from .issues import summarize_issues as summarize_issues
from .joining import join as join
from .label_maps import make_instance_map as make_instance_map
from .label_maps import make_label_map as make_label_map
from .label_maps import pixel_classes as pixel_classes
from .label_maps import read_label_map as read_label_map
from .samplers import AspectBatchSampler as AspectBatchSampler
from .samplers import MixedBatchSampler as MixedBatchSampler
from .samples import sample_images as sample_images
from .samples import write_sample_images as write_sample_images
from .sources import Source as Source
from .sources import find_images as find_images
from .sources import iter_sources as iter_sources
from .sources import to_image as to_image
from .synthetic import make_scene as make_scene
from .synthetic import write_scenes as write_scenes
from .transforms import train_transforms as train_transforms

__all__ = [
    "Annotations",
    "AspectBatchSampler",
    "AugmentConfig",
    "Category",
    "ConversionWarning",
    "CropConfig",
    "CropDataset",
    "ImageDataset",
    "ImageError",
    "InstanceDataset",
    "Issue",
    "MixedBatchSampler",
    "ScaleCropConfig",
    "SemanticDataset",
    "Source",
    "check",
    "collate",
    "convert",
    "find_images",
    "format_issues",
    "image_size",
    "issues_to_json",
    "iter_sources",
    "join",
    "make_instance_map",
    "make_label_map",
    "make_scene",
    "pixel_classes",
    "read",
    "read_image",
    "read_label_map",
    "recognize",
    "repair",
    "sample_images",
    "summarize_issues",
    "to_image",
    "train_transforms",
    "write",
    "write_sample_images",
    "write_scenes",
]
