from .job import LabeledTable as LabeledTable
from .job import label_table as label_table
