"""ESPnet's kind of table for networks that listen, which ESPnet has none for.

The classes are those of `core.nets` themselves; `core.nets.tagger.Tagger` is their interface.
"""

from espnet2.train.class_choices import ClassChoices

from espnet2_ext.core.nets.tagger import Tagger

query_net_choices = ClassChoices(name="query_net", classes={}, type_check=Tagger, default="hts_at")
