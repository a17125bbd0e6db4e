git init -q .
git symbolic-ref HEAD refs/heads/main
git fast-import --quiet <../input/history
git reset -q --hard
# The pack itself depends on how the threads share the work.
git -c pack.threads=4 repack -adfq --window=20
git fsck --full
git rev-parse HEAD
git log --stat -p | git hash-object --stdin
git blame file-7 | git hash-object --stdin
git grep -c abc | sort
git gc -q
git log --oneline | head -n 3
git status --short
