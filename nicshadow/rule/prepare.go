package rule

type prepared struct{}

func prepare(u *Unit) prepared { return prepared{} }
