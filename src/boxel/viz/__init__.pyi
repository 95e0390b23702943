from .overlays import contact_sheet as contact_sheet
from .overlays import draw_dataset as draw_dataset
from .overlays import overlay as overlay
from .overlays import overlay_labels as overlay_labels
from .overlays import save_image as save_image
from .report import write_check_report as write_check_report
from .report import write_report as write_report
