//! Transcripts: a machine's ceremony log as it is printed, kept, and compared with those of the others.
