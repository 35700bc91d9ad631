package dunlin.rehearsal;

import com.aliyun.fc.runtime.Context;
import com.aliyun.fc.runtime.PojoRequestHandler;
import java.util.List;

/** A handler of objects that nobody sees. */
public class Bean implements PojoRequestHandler<Bean.Input, Bean.Input> {
    @Override
    public Input handleRequest(Input input, Context context) {
        input.setCount(input.getCount() + 1);
        return input;
    }

    /** What it takes and returns. */
    public static class Input {
        private String name;
        private int count;
        private List<Object> list;

        public String getName() {
            return name;
        }

        public void setName(String name) {
            this.name = name;
        }

        public int getCount() {
            return count;
        }

        public void setCount(int count) {
            this.count = count;
        }

        public List<Object> getList() {
            return list;
        }

        public void setList(List<Object> list) {
            this.list = list;
        }
    }
}
