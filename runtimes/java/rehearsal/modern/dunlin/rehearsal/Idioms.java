package dunlin.rehearsal;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;

/** What most code does sooner or later and what is slow the first time: lambdas, streams, joined and formatted text. */
public class Idioms {
    /** Called by reflection, as a method that implements no interface is. */
    public String handleRequest(String event) {
        List<Integer> numbers = new ArrayList<>(Arrays.asList(3, 1, 2));
        numbers.sort((one, other) -> one - other);
        String joined = numbers.stream().filter(number -> number > 1).map(number -> "<" + number + ">").collect(Collectors.joining(","));
        return String.format("%s has %d characters, ", joined, event.length()) + event + numbers.size();
    }
}
