(( $+functions[_plyfs_options] )) ||
_plyfs_options() {
    _values -s , 'mount option' \
VALUES
}
