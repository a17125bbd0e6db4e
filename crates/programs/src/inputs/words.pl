use strict;
my (%count, %lines);
while (my $line = <>) {
    for my $word (split ' ', $line) {
        $count{$word}++;
        push @{$lines{$word}}, $.;
    }
}
my @words = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
printf "%d words\n", scalar @words;
printf "%s %d %s\n", $_, $count{$_}, join(",", @{$lines{$_}}[0 .. 4]) for @words[0 .. 29];
my $text = join(" ", map { ucfirst } @words);
$text =~ s/([aeiou])/<$1>/g;
print length($text), "\n";
