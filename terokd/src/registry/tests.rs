//! Real directories, real inotify.
