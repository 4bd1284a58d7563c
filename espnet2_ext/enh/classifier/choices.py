"""ESPnet's kind of table for sound event classifiers, which ESPnet has none for.

The classes are those of `core.nets.sed` themselves: `forward(mag [B, L, F], lengths)` gives frame
logits `[B, K, L']`; see there for the rest of what a classifier needs.
"""

from espnet2.train.class_choices import ClassChoices
from torch import nn

classifier_choices = ClassChoices(name="classifier", classes={}, type_check=nn.Module, default="crnn")
