"""Diagnostic sessions, client and server, over udsoncan's codecs (ISO 14229-1).  Sans-IO."""
