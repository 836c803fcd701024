// Package archtest holds the rules of the repository as tests: who may import whom, that every package says what it is,
// that every endpoint is bound once and has its golden files, and what must not be left lying about.
//
// A rule is a function from a tree of files to what breaks it. Each runs on the repository and, so that it is known to
// be able to fail, on small trees that break it. The package has no code outside its tests.
package archtest
