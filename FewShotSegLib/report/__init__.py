"""Results for people to look at: a contact sheet of one scan and an HTML page about one or many.

`slices` which slices to show and how grey they are, `colors` organ colours that can be told apart, `sheet` the picture, `hints`
confidence in plain words, `page` the HTML.
"""

from FewShotSegLib.report.page import ReportJob, picture_name, write_report
from FewShotSegLib.report.sheet import contact_sheet, write_contact_sheet

__all__ = ["ReportJob", "contact_sheet", "picture_name", "write_contact_sheet", "write_report"]
