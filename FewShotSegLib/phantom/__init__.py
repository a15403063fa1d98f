"""An invented abdomen for demonstrations and tests: from a seed to a scan that looks like MR or CT, with true labels.

`tissues` what there is and how bright it is, `fields` randomness, `frame` the page to draw on, `torso`, `organs` and `gut`
the anatomy, `scanner` the image, `patient` all of it together.
"""

from FewShotSegLib.phantom.patient import ORGANS, Phantom, make_patient, save_case

__all__ = ["ORGANS", "Phantom", "make_patient", "save_case"]
