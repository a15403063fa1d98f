# Slicer's own file of this role does much; the packaging test needs none of it.
