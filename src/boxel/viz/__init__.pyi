from .overlays import contact_sheet as contact_sheet
from .overlays import draw_dataset as draw_dataset
from .overlays import overlay as overlay
from .overlays import overlay_annotations as overlay_annotations
from .overlays import overlay_labels as overlay_labels
from .overlays import save_image as save_image
from .plots import plot_affinity as plot_affinity
from .plots import plot_curves as plot_curves
from .plots import plot_recall as plot_recall
from .plots import plot_trimap as plot_trimap
from .report import write_report as write_report

__all__ = [
    "contact_sheet",
    "draw_dataset",
    "overlay",
    "overlay_annotations",
    "overlay_labels",
    "plot_affinity",
    "plot_curves",
    "plot_recall",
    "plot_trimap",
    "save_image",
    "write_report",
]
