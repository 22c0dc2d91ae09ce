"""Packaging: `pip install -e .`, with the extras `gpu`, `pytorch` and `dev`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "lut_tf" / "__init__.py").read_text(encoding="utf-8"), re.M)[1]

setup(
    name="lut-tf",
    version=VERSION,
    description="LUT pre-training of Vision Transformers with unmasked tokens, in TensorFlow and Keras 3",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["lut_tf", "lut_tf.*"]),
    package_data={"lut_tf": ["py.typed", "evaluate/classes/*"]},
    entry_points={"console_scripts": ["lut-tf = lut_tf.cli:console"]},
    install_requires=[
        "tensorflow>=2.21",  # training, input pipelines and distribution
        "keras>=3.15",  # networks, backend-neutral
        "keras-cv>=0.9",  # RandAugment, MixUp and CutMix for fine-tuning
        "tensorflow-datasets>=4.9.10",  # public data sets by name
        "onnx>=1.23",  # reading and checking exported graphs
        "tf2onnx>=1.17",  # export to ONNX
        "onnxruntime>=1.31",  # comparing an exported graph with the model it came from
        "scikit-learn>=1.9",  # the embedded digits, and the logistic-regression probe
        "pillow>=12",  # image files that TensorFlow cannot decode
        "matplotlib>=3.11",  # reconstruction pictures
        "tensorboard>=2.21",  # curves and pictures while training
        "h5py>=3.12",  # Keras' files of weights from before a renaming
        "safetensors>=0.6",  # reading and writing other people's weights without PyTorch
        "pyyaml>=6",  # files of settings
        "docstring_parser>=0.16",  # the settings' meanings, for --help
        "annotated-types>=0.7",  # the ranges of settings, as pydantic reads them
        "pydantic>=2.12",  # types and ranges of settings
        "filelock>=4.2",  # the lock that keeps two runs off one directory
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.21"],  # the CUDA libraries that TensorFlow was built against
        "pytorch": ["torch>=2.6"],  # reading and writing .pth files of other people's weights
        "dev": [
            "pytest",  # the tests
            "pytest-xdist",  # the tests in two processes
            "hypothesis",  # properties of masks, orders and schedules
            "ruff",  # lint and format
            "mypy",  # types
            "types-PyYAML",  # types of the YAML reader
        ],
    },
)
