package client

// What the tests look at from outside the package.
var Pause = pause

const LongestPause = longestPause
