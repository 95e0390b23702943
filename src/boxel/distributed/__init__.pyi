from .cost import Estimate as Estimate
from .job import LabeledTable as LabeledTable
from .job import estimate as estimate
from .job import label_table as label_table
