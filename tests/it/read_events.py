"""Prints what TensorBoard finds in a folder of event files, as JSON: by kind and tag, a list of
[step, value]; of a histogram the value is [numbers, buckets], of an image [width, height]."""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

EVERYTHING = {"scalars": 0, "histograms": 0, "images": 0}
VALUE = {
    "scalars": lambda event: event.value,
    "histograms": lambda event: [event.histogram_value.num, len(event.histogram_value.bucket)],
    "images": lambda event: [event.width, event.height],
}

accumulator = EventAccumulator(sys.argv[1], size_guidance=EVERYTHING)
accumulator.Reload()
events = {"scalars": accumulator.Scalars, "histograms": accumulator.Histograms, "images": accumulator.Images}
found = {
    kind: {tag: [[event.step, VALUE[kind](event)] for event in events[kind](tag)] for tag in accumulator.Tags()[kind]}
    for kind in EVERYTHING
}
json.dump(found, sys.stdout)
