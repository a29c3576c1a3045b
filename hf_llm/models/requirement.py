"""The version of transformers that these models need, checked before anything that an older one lacks is imported.

This file travels with saved weights.
"""

import transformers
from packaging.version import Version

TRANSFORMERS = "5.20"

if Version(transformers.__version__).release < Version(TRANSFORMERS).release:
    raise ImportError(
        f"this model needs transformers>={TRANSFORMERS}, and {transformers.__version__} is installed: "
        f'pip install "transformers>={TRANSFORMERS}"'
    )
