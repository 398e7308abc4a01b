"""Recurrent layers over a fixed number of time steps."""

from collections.abc import Mapping

from models.gradients.rules.recurrent import gru, lstm, rnn
from models.gradients.rules.rule import Rule

RULES: Mapping[str, Rule] = {"GRU": gru.RULE, "LSTM": lstm.RULE, "RNN": rnn.RULE}
