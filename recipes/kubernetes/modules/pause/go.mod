module sternpost/pause

go 1.26.0
