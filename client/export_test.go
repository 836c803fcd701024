package client

// What the tests look at from outside the package.
var (
	Pause      = pause
	LeasePause = leasePause
)

const LongestPause = longestPause
