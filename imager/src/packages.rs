//! Packages: downloads them into the cache.
