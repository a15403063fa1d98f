"""In Slicer: install the PyTorch extension, as a user does in the Extensions Manager."""

import slicer

model = slicer.app.extensionsManagerModel()
model.interactive = False
done = model.installExtensionFromServer("PyTorch", False)
print("PyTorch extension:", "installed" if done else "not installed")
slicer.util.exit(slicer.util.EXIT_SUCCESS if done else slicer.util.EXIT_FAILURE)
