"""Settings of a stage: one dataclass gives its Python arguments, its flags and its YAML keys.

A field made by `setting` carries its sentence for `--help`. Classes are combined by inheritance; a
class with `_argument_group_name` is a group in `--help`.
"""

from collabllm.settings.fields import Settings, deciding_values, setting, to_settings, to_yaml
from collabllm.settings.parser import parse_settings, parse_settings_and_rest
from collabllm.settings.values import (
    load_config,
    nearest_names,
    parse_json,
    plain_error,
    read_mapping,
    switch_word,
    to_value,
    unknown_names,
)

__all__ = [
    "Settings",
    "deciding_values",
    "load_config",
    "nearest_names",
    "parse_json",
    "parse_settings",
    "parse_settings_and_rest",
    "plain_error",
    "read_mapping",
    "setting",
    "switch_word",
    "to_settings",
    "to_value",
    "to_yaml",
    "unknown_names",
]
