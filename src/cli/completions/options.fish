# A list with commas: every way to go on from its last item.
function __plyfs_options
    set -l list (commandline -ct)
    set -l before (string match -r '^.*,' -- $list)
    set -l item (string split , -- $list)[-1]
    # Directories after the last = or : of an option that takes some.
    if set -l option (string match -r '^(?:DIRECTORIES)=(?:.*:)?' -- $item)
        for directory in (__fish_complete_directories (string replace -- $option '' $item))
            echo "$before$option$directory"
        end
        return
    end
    set -l words \
LINES
    printf '%s\n' "$before"$words
end
complete -c plyfs -n 'not __fish_seen_subcommand_from COMMANDS' -s o -x -a '(__plyfs_options)'
