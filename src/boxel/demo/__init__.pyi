from .photos import DemoResult as DemoResult
from .photos import demo as demo
from .scenes import demo_train as demo_train
