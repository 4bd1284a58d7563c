"""Tables of one's own recordings r0.wav to r10.wav, with clip labels and with times."""

CLIPS = "path,labels,set\n"
EVENTS = "path,onset,offset,label,set\n"
GOOD = CLIPS + "r0.wav,dog,train\nr1.wav,cat;dog,train\nr2.wav,cat,train\nr3.wav,dog;cat,valid\n"
GOOD += "r4.wav,dog;cat,test\n"
FRAMES = EVENTS + "r5.wav,0.1,0.5,dog,train\nr5.wav,0.4,1.2,cat,train\nr6.wav,0,1.6,dog,train\n"


def table(text, name="clips.csv"):
    with open(name, "w", encoding="utf-8") as f:
        f.write(text)
    return name
