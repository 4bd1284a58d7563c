"""What the embedded corpus plays: AudioSet classes and the General MIDI sounds that stand for them.

Identifiers, display names and the tree are AudioSet's published ones (`class_labels_indices.csv`,
`ontology.json`); programs and drum keys are General MIDI's, counted from 0.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Voice:
    """How one class sounds and moves.

    Attributes:
        mid, name: AudioSet's identifier and display name.
        styles: names in `mini_score.STYLES`; a clip draws one.
        programs: General MIDI programs (drum kits when `drum`); a clip draws one.
        keys: lowest and highest key, or the drum keys in use when `drum`.
        grid: shortest and longest time unit in seconds; a clip draws one.
        steps: time units from one beat to the next; a beat draws one.
        hold: range of a note's length as a share of the time to the next beat.
        cents: largest detuning of a whole clip.
        vibrato: largest depth, as a value of the modulation controller (0 to 127).
        volume: value of the volume controller; lower where loud strokes meet and would clip.
        drum: keys name instruments of a kit, not pitches.
        also: mid of a parent class that some of the clips carry as a second label.
    """

    mid: str
    name: str
    styles: tuple[str, ...]
    programs: tuple[int, ...]
    keys: tuple[int, ...]
    grid: tuple[float, float] = (0.11, 0.19)
    steps: tuple[int, ...] = (1, 2, 3, 4)
    hold: tuple[float, float] = (0.7, 1.0)
    cents: float = 40.0
    vibrato: int = 0
    volume: int = 127
    drum: bool = False
    also: str = ""


_PLAYED = ("melody", "arpeggio", "chords")
_STRUCK = {"styles": ("strokes",), "drum": True, "cents": 100.0}
_BLOWN = {"styles": ("melody", "arpeggio"), "hold": (0.8, 1.0), "vibrato": 40}
_SWELL = {"styles": ("texture",), "grid": (0.3, 0.5), "hold": (1.2, 2.0), "cents": 100.0}

# In the order of AudioSet's own class list. The effects keep to a narrow range: transposed far,
# their one sample is no longer what its label says. The kit has no hi-hat and no cymbal, which are
# classes of their own: clips with the same sound under unrelated labels cannot be told apart.
VOICES = (
    Voice("/m/0l14jd", "Choir", ("chords", "melody"), (52, 53), (52, 79), (0.2, 0.35), vibrato=30),
    Voice("/m/028ght", "Applause", programs=(126,), keys=(52, 68), **_SWELL),
    Voice("/m/0239kh", "Cowbell", programs=(0, 8), keys=(56,), **_STRUCK),
    Voice(
        "/m/020bb7",
        "Bird vocalization, bird call, bird song",
        ("texture",),
        (123,),
        (50, 66),
        hold=(1.0, 2.0),
        cents=100.0,
    ),
    Voice("/m/02sgy", "Electric guitar", _PLAYED, (29, 30), (40, 76), vibrato=20),
    Voice("/m/018vs", "Bass guitar", ("melody", "arpeggio"), (33, 34, 36), (28, 50)),
    Voice("/m/042v_gx", "Acoustic guitar", _PLAYED, (24, 25), (43, 76)),
    Voice("/m/05r5c", "Piano", _PLAYED, (0, 1, 2), (43, 88)),
    Voice("/m/013y1f", "Organ", ("chords", "arpeggio"), (16, 17, 19), (43, 84), (0.15, 0.3)),
    Voice("/m/03q5t", "Harpsichord", _PLAYED, (6,), (43, 84)),
    Voice(
        "/m/02hnl",
        "Drum kit",
        ("beat",),
        (0, 8, 16, 32),
        (36, 38, 45, 48),
        (0.1, 0.16),
        (1, 2),
        cents=60.0,
        volume=80,
        drum=True,
    ),
    Voice("/m/011k_j", "Timpani", ("melody", "texture"), (47,), (38, 57), hold=(1.0, 1.5)),
    Voice("/m/01qbl", "Cymbal", ("strokes",), (0, 8), (49, 51, 52, 55, 57), (0.15, 0.25), cents=100.0, drum=True),
    Voice("/m/03qtq", "Hi-hat", programs=(0, 8), keys=(42, 44), also="/m/01qbl", **_STRUCK),
    Voice("/m/07brj", "Tambourine", programs=(0,), keys=(54,), **_STRUCK),
    Voice("/m/0dwtp", "Glockenspiel", ("melody", "arpeggio"), (9,), (76, 103)),
    Voice("/m/0l156b", "Steelpan", _PLAYED, (114,), (55, 84)),
    Voice("/m/07gql", "Trumpet", programs=(56,), keys=(55, 84), **_BLOWN),
    Voice("/m/07y_7", "Violin, fiddle", ("melody",), (40, 110), (55, 93), vibrato=40),
    Voice("/m/0l14j_", "Flute", programs=(73,), keys=(60, 93), **_BLOWN),
    Voice("/m/034srq", "Waves, surf", programs=(122,), keys=(48, 70), **_SWELL),
    Voice("/m/09ct_", "Helicopter", programs=(125,), keys=(52, 68), **_SWELL),
    Voice("/m/07pp8cl", "Telephone bell ringing", ("texture",), (124,), (57, 69), cents=100.0),
    Voice("/m/032s66", "Gunshot, gunfire", ("texture",), (127,), (60, 79), (0.12, 0.22), (1, 2, 3), cents=100.0),
)

# The part of the ontology above and between these classes: mid, name, children.
BRANCHES = (
    ("/m/0dgw9r", "Human sounds", "/m/09l8g /t/dd00012"),
    ("/m/09l8g", "Human voice", "/m/015lz1"),
    ("/m/015lz1", "Singing", "/m/0l14jd"),
    ("/t/dd00012", "Human group actions", "/m/028ght"),
    ("/m/0jbk", "Animal", "/m/0ch8v /m/01280g"),
    ("/m/0ch8v", "Livestock, farm animals, working animals", "/m/01xq0k1"),
    ("/m/01xq0k1", "Cattle, bovinae", "/m/0239kh"),
    ("/m/01280g", "Wild animals", "/m/015p6"),
    ("/m/015p6", "Bird", "/m/020bb7"),
    ("/m/04rlf", "Music", "/m/04szw"),
    (
        "/m/04szw",
        "Musical instrument",
        "/m/0fx80y /m/05148p4 /m/0l14md /m/01kcd /m/0l14_3 /m/085jw /m/0l14jd /m/0395lw",
    ),
    ("/m/0fx80y", "Plucked string instrument", "/m/0342h"),
    ("/m/0342h", "Guitar", "/m/02sgy /m/018vs /m/042v_gx"),
    ("/m/05148p4", "Keyboard (musical)", "/m/05r5c /m/013y1f /m/03q5t"),
    ("/m/0l14md", "Percussion", "/m/02hnl /m/026t6 /m/01qbl /m/0239kh /m/07brj /m/0j45pbj"),
    ("/m/026t6", "Drum", "/m/011k_j"),
    ("/m/01qbl", "Cymbal", "/m/03qtq"),
    ("/m/0j45pbj", "Mallet percussion", "/m/0dwtp /m/0l156b"),
    ("/m/01kcd", "Brass instrument", "/m/07gql"),
    ("/m/0l14_3", "Bowed string instrument", "/m/07y_7"),
    ("/m/085jw", "Wind instrument, woodwind instrument", "/m/0l14j_"),
    ("/m/0395lw", "Bell", "/m/0239kh"),
    ("/m/059j3w", "Natural sounds", "/m/0838f"),
    ("/m/0838f", "Water", "/m/05kq4"),
    ("/m/05kq4", "Ocean", "/m/034srq"),
    ("/t/dd00041", "Sounds of things", "/m/07yv9 /m/0395lw /m/07pp_mv /m/014zdl"),
    ("/m/07yv9", "Vehicle", "/m/0k5j"),
    ("/m/0k5j", "Aircraft", "/m/09ct_"),
    ("/m/07pp_mv", "Alarm", "/m/07cx4"),
    ("/m/07cx4", "Telephone", "/m/07pp8cl"),
    ("/m/014zdl", "Explosion", "/m/032s66"),
)
