"""What a program meets outside: blocked calls, signals, forks, limits, exits."""
