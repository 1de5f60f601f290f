# Sourced by the scripts beside it: the fuzzers are built from the versions that the product is built from.
cmp -s ../Cargo.lock Cargo.lock.from || cp ../Cargo.lock Cargo.lock
cp ../Cargo.lock Cargo.lock.from
