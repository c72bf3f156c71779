package pace

import "container/heap"

// spot is where one who waits stands, and why there. It is guarded by the mutex of what
// it waits for.
type spot struct {
	had   float64 // bytes, by the clock of what it waits for
	asked uint64  // when it came, in the order of all who did
	place int     // in the queue; −1: none
}

func (s *spot) stands() *spot { return s }

// waits reports whether it stands in a queue.
func (s *spot) waits() bool { return s.place >= 0 }

// queue is a heap of those who wait: first who had least, and of those who came first.
type queue[T interface{ stands() *spot }] []T

func (q *queue[T]) push(one T)          { heap.Push(q, one) }
func (q *queue[T]) pop()                { heap.Pop(q) }
func (q *queue[T]) remove(from *spot)   { heap.Remove(q, from.place) }
func (q *queue[T]) reorder(moved *spot) { heap.Fix(q, moved.place) }

// Len implements [heap.Interface].
func (q queue[T]) Len() int { return len(q) }

// Less implements [heap.Interface].
func (q queue[T]) Less(i, j int) bool {
	a, b := q[i].stands(), q[j].stands()
	if a.had != b.had {
		return a.had < b.had
	}
	return a.asked < b.asked
}

// Swap implements [heap.Interface].
func (q queue[T]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].stands().place, q[j].stands().place = i, j
}

// Push implements [heap.Interface].
func (q *queue[T]) Push(x any) {
	one := x.(T) //nolint:errcheck // the heap has no others
	one.stands().place = len(*q)
	*q = append(*q, one)
}

// Pop implements [heap.Interface].
func (q *queue[T]) Pop() any {
	last := len(*q) - 1
	one := (*q)[last]
	var none T
	(*q)[last] = none
	*q = (*q)[:last]
	one.stands().place = -1
	return one
}
