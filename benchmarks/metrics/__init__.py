"""The official metrics: functions of the labelled rows of one task, language and split."""
